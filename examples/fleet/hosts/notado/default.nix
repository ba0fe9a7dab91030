{ pkgs, ... }:
let
  port = 8080;
in
{
  networking.hostName = "notado";

  services.notado.enable = true;
  services.postgresql = {
    enable = true;
    ensureDatabases = [ "notado" ];
  };

  environment.etc."notado.toml".source = pkgs.runCommand "notado.toml" { inherit port; } ''
    echo "checking the configuration of notado"
    if [ "$port" -lt 1024 ]; then
      echo "notado has no privileges, it can't listen on port $port" >&2
      exit 1
    fi
    echo "listen = \"127.0.0.1:$port\"" > "$out"
  '';
}
