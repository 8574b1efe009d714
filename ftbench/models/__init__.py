"""What is tuned: where a checkpoint lies (``locate``), and the network made of it (``backbone``)."""
