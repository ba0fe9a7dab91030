# What all machines have.
{ config, pkgs, ... }:
{
  nixpkgs.overlays = [ (import ../pkgs) ];

  boot.kernelPackages = pkgs.linuxPackages;

  environment.etc.hostname.text = config.networking.hostName + "\n";
  environment.systemPackages = [ pkgs.git pkgs.openssh ];

  services.openssh = {
    enable = true;
    settings.PasswordAuthentication = false;
    settings.PermitRootLogin = "no";
  };

  system.stateVersion = "24.11";
}
