"""What is in an artefact, and is it sound."""
