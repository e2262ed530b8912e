"""The whole job, from publish to score, the way a user would do it."""
