
target "a" { 
 tags = ["a"]
 output = ["type=registry"]
 secret = ["id=s,src=x"]
 cache-from = ["type=local,src=c"]
}
target "b" { args = {x = "1"} }
group "default" { targets = ["a", "b"] }
