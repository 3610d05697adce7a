"""What a report is made of, to something a person reads. It sees tables only."""
