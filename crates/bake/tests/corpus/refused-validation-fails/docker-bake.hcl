
variable "PORT" {
  type = number
  default = 5
  validation {
    condition = PORT > 10
    error_message = "too low: ${PORT}"
  }
  validation {
    condition = PORT < 100
    error_message = "too high"
  }
}
target "default" { args = { p = PORT } }
