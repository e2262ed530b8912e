"""What `edge-agent` can be told, one file per topic; `agent.cli` hangs them on their names."""
