# Hosts that share a kernel and a service, which fails if the file broken is there, and one that needs twelve parts.
# The first two parts that are begun wait for the file go. All that is begun is in the file begun.
{
  outputs = _:
    let
      build = name: script: needs: derivation {
        inherit name needs;
        system = "x86_64-linux";
        PATH = "/usr/bin:/bin";
        builder = "/bin/sh";
        args = [ "-c" "cd @dir@; echo ${name} >>begun; ${script}; echo $needs >$out" ];
      };
      kernel = build "kernel" ":" [ ];
      service = build "service" "if test -e broken; then echo the service is broken; exit 1; fi" [ kernel ];
      part = n: build "part-${toString n}" ''
        for i in 1 2; do
          if mkdir $i 2>/dev/null; then until test -e go; do sleep 0.1; done; break; fi
        done'' [ ];
      host = name: needs: { config.system.build.toplevel = build "nixos-system-${name}" ":" needs; };
    in
    {
      nixosConfigurations = {
        a = host "a" [ kernel service ];
        b = host "b" [ kernel service ];
        c = host "c" [ kernel ];
        large = host "large" (builtins.genList part 12);
      };
    };
}
