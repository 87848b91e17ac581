target "default" { args = { x = upper([]) } }
