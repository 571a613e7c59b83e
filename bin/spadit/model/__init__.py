"""The network and its diffusion: embedding φ, condition ψ, DiT backbone, forward and reverse process."""
