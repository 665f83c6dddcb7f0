"""From a policy to the SQL of marked views. Pure code."""
