"""The miniature Stable Diffusion that ships with the package: the stages of its training and their assembly."""
