"""What an artifact's exits do on a split and on this machine, and whether leaving early pays there."""
