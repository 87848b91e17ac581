target "default" { contexts = { x = "target:b" } }
target "b" { contexts = { y = "target:default" } }
