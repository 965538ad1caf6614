"""Training: the storybook's miniature Stable Diffusion, and the text-only anchor that lengthens its text encoder."""
