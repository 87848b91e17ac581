target "default" { args = { x = target.nope.context } }
