
target "default" {
  attest = ["type=provenance,mode=max", { type = "sbom", generator = "x,y" }, {type="other", disabled = true}]
  cache-from = ["user/app:cache", "type=local,src=path/to/cache", {type = "registry", ref = "a/b"}, "user/app:cache", ""]
  cache-to = ["type=inline", {type="local", dest="out"}]
  output = ["type=image,push=true", "./out", "-", { type = "tar", dest = "x.tar" }, {type="local", dest="o2", mode = "copy"}]
  secret = ["type=env,id=TOKEN,env=MY_TOKEN", "id=f,src=passwd", { id = "k", src = "s" }, {id = "k", src="passwd"}, "id=t2,type=env,src=V"]
  ssh = ["default", "key=agent", { id = "o", paths = ["agent"] }]
  resources = { memory = "1g", cpu-shares = 512, cpuset-cpus = "0-1" }
  policy = ["filename=p.rego,strict=true", { filename = "q.rego", log-level = "debug", reset = true }]
}
