"""What is trained: landmarks or a face detector."""
