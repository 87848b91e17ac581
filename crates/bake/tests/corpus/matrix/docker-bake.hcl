
target "app" {
  name = "app-${tgt}-${replace(v.n, ".", "-")}"
  matrix = {
    tgt = ["foo", "bar"]
    v = [{n = "1.0", x = "one"}]
  }
  target = tgt
  tags = ["app:${tgt}-${v.x}"]
  args = { N = v.n }
}
target "sole" {
  matrix = { a = ["x", "y"] }
  name = "sole-${a}"
  inherits = ["app-${a == "x" ? "foo" : "bar"}-1-0"]
}
group "default" { targets = ["app", "sole"] }
