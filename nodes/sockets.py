"""The pack's own socket type."""

from comfy_api.latest import io

AlloSR2 = io.Custom("ALLOSR2")
