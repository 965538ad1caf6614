"""The miniature Stable Diffusion that ships with the package: its four stages of training and their assembly."""
