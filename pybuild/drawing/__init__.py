"""`bootsplice plan`: what a plan says, as data, text and pictures."""
