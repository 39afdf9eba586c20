"""What both processes share at run time: settings, logs, health, pauses between attempts."""
