
function "increment" {
  params = [number]
  result = number + 1
}
function "names" {
  params = [prefix]
  variadic_params = rest
  result = [for r in rest : "${prefix}-${r}"]
}
function "nested" {
  params = [x]
  result = increment(increment(x))
}
variable "N" { default = 5 }
target "default" {
  args = { n = nested(N), v = join(",", names("p", "a", "b")), e = join(",", names("p", ["x", "y"]...)) }
}
