
unknown "block" { x = 1 }
target "default" {
  unknown = "attribute"
  tags = ["x"]
}
