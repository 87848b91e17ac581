target "default" {
 name = "x"
 matrix = { a = ["b", "c"] }
}
