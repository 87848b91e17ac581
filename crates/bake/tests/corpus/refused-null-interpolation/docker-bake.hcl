target "default" { args = { x = "a${null}" } }
