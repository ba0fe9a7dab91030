{ pkgs, ... }:
{
  networking.hostName = "hetzner";

  services.nginx = {
    enable = true;
    virtualHosts."anna.example" = {
      root = pkgs.website;
      forceSSL = true;
    };
  };
}
