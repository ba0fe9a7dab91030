# Fifty machines, two of which need something that does not build.
{
  outputs =
    { self }:
    let
      sh =
        name: script: needs:
        derivation {
          inherit name needs;
          system = "x86_64-linux";
          builder = "/bin/sh";
          args = [ "-c" script ];
        };
      nginx = sh "nginx-1.28.0" "echo checking for OS; echo src/core/nginx.c:214:5: error: no such function; exit 1" null;
      host = name: {
        inherit name;
        value.config.system.build.toplevel =
          sh "nixos-system-${name}-24.11" "echo > $out" (if builtins.elem name [ "host07" "host31" ] then nginx else null);
      };
      number = n: if n < 10 then "0${toString n}" else toString n;
    in
    {
      nixosConfigurations = builtins.listToAttrs (builtins.genList (n: host "host${number n}") 50);
    };
}
