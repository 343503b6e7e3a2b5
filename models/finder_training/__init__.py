"""Training of the finder that ships: artefacts, views of photographs with their targets, and the run itself."""
