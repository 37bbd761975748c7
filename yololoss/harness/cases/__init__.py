"""What a loss is asked: cases, the domains they are drawn from, the files that hold them. No loss runs here."""
