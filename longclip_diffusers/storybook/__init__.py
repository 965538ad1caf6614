"""The storybook: a procedural picture world whose pictures can be read back slot by slot."""
