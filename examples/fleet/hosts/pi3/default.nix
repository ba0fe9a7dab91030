{ pkgs, ... }:
{
  networking.hostName = "pi3";

  boot.initrd.availableKernelModules = [ "bcm2835_dma" ];
  hardware.firmware = [ pkgs.raspberrypi-firmware ];

  services.mosquitto = {
    enable = true;
    listeners = [ { port = 1883; } ];
  };
}
