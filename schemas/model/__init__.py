"""What travels: log positions, changes and their order, relations, commits; and the errors that a user can fix."""
