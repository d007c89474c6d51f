"""All contact with ComfyUI, the host. Beside this folder only the nodes' schemas use it, through `comfy_api`.

files            checkpoints in the host's model folders
execution        what a running node tells the host: progress, cancelling, blocking
memory           free memory, a VAE loaded with room to work, less at a time when memory runs out
model            a MODEL as a velocity, and the one step on it
preview          a small picture of a result while it is decoded
vae              a VAE as encoder and decoder of the core
kl_autoencoder   whole pictures through a KL autoencoder that does not fit the device
patches          weight patches, every one counted
fit              whether MODEL and VAE are those a checkpoint needs
adapter          an adapter on the MODEL and VAE of its base
embedded         a standalone checkpoint as MODEL and VAE
dtypes           in which type those compute
layers           the host's layers in the MODEL's network
"""

from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE

__all__ = ["VAE", "ModelPatcher"]
