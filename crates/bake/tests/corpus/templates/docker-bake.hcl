
variable "ITEMS" { default = ["a", "b", "c"] }
variable "ON" { default = true }
target "default" {
  args = {
    loop = "%{ for i, x in ITEMS }${i}=${x};%{ endfor }"
    cond = "%{ if ON }yes%{ else }no%{ endif }"
    strip = "x ${~ "y" ~} z"
    stripif = <<-EOT
      %{~ if ON ~}
      on
      %{~ endif ~}
    EOT
    indent = <<-EOT
      one
        two
      three
    EOT
    raw = <<EOT
  keep
    this
EOT
    esc = "a\tb\n\"q\" \u00e9 $${x} %%{y}"
    wrap = "${ITEMS[1]}"
    splat = join(",", [{n = "p"}, {n = "q"}][*].n)
    attr = join(",", [{n = "p"}, {n = "q"}].*.n)
    arith = "${1 + 2 * 3 - 4 / 2 % 3} ${-(2)} ${10 / 4} ${7 % 3} ${1 / 3}"
    logic = "${true && !false || false} ${1 < 2} ${2 >= 3} ${"a" == "a"} ${1 != 2} ${"1" == 1}"
    obj = jsonencode({ for k, v in { a = 1, b = 2 } : upper(k) => v * 10 if v > 1 })
    group = jsonencode({ for v in ["ax", "ay", "bz"] : substr(v, 0, 1) => v... })
    big = "${12345678901234567890 * 10} ${0.1 + 0.2} ${1e3} ${2.50}"
    cond2 = jsonencode(ON ? ["a"] : [])
    cond3 = jsonencode(ON ? {a = 1} : {b = "x"})
    cond4 = ON ? 1 : "x"
  }
}
