
variable "X" { default = "1" }
target "default" { 
  tags = ["one:${X}"]
  args = {a = "1"}
}
group "g" { targets = ["default"] }
