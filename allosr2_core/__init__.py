"""The pure torch library under the AlloSR2 nodes and trainer: it imports neither ComfyUI nor the nodes."""
