"""What is in an artifact, and is it sound."""
