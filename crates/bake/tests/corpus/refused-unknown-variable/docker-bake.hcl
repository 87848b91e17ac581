target "default" { tags = ["x:${NOPE}"] }
