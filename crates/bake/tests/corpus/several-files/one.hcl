
variable "V" { default = "x" }
target "t" { args = { v = V } }
