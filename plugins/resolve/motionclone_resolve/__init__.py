"""Clone the motion of timeline clips from DaVinci Resolve's script menu."""
