"""Networks of methods beside SpaDiT. They are here so that a list of the methods is had without importing PyTorch."""
