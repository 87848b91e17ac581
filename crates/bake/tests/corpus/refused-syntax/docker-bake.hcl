target "default" {
  tags = [
}
