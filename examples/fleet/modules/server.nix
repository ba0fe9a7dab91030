# Rented machines.
{ ... }:
{
  boot.initrd.availableKernelModules = [ "virtio_pci" "virtio_scsi" ];

  services.backup = {
    enable = true;
    hosts = [ "nixsl" "pi3" ];
  };
}
