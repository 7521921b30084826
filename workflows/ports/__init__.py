"""What each workflow is told and asks for."""
