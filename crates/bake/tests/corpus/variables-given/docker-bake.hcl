
variable "TAG" { default = "latest" }
variable "COUNT" { default = 3 }
variable "FLAG" { default = false }
variable "EMPTY" {}
variable "NOTHING" { default = null }
variable "TYPED" { type = list(string) }
variable "LIST" {
  type = list(string)
  default = ["a", "b"]
  description = "some list"
}
variable "NUMBERS" {
  type = set(number)
  default = [3, 1, 2, 1]
}
variable "MAP" {
  type = map(string)
  default = { x = 1 }
}
variable "OBJECT" {
  type = object({ name = string, port = optional(number), on = bool })
  default = { name = "n", on = true }
}
variable "TUPLE" {
  type = tuple([string, number])
  default = ["t", 4]
}
derived = "${TAG}-${COUNT + 1}"
target "default" {
  tags = ["app:${TAG}", "app:${derived}"]
  args = {
    count = COUNT * 2
    flag = !FLAG
    empty = "[${EMPTY}]"
    nothing = NOTHING == null ? "null" : "some"
    typed = TYPED == null ? "null" : join(",", TYPED)
    list = join("+", LIST)
    numbers = join("+", [for n in NUMBERS : "n${n}"])
    map = join(",", [for k, v in MAP : "${k}=${v}"])
    object = "${OBJECT.name} ${OBJECT.on} ${OBJECT.port == null}"
    tuple = "${TUPLE[0]}${TUPLE[1] + 1}"
    cmd = BAKE_CMD_CONTEXT
  }
}
