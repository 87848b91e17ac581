
target "default" { 
  args = {b = "2"}
  platforms = ["linux/arm64"]
}
variable "X" { default = "2" }
