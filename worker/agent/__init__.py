"""The agent: keeps a session with the managers and drives this node's tasks to where they should be."""
