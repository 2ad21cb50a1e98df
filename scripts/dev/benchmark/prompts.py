"""Typical prompts: an instruction, names, a preceding sentence, a list of words.

None of them is related to the clips.
"""

from __future__ import annotations

VOCABULARY = (
    "acetaminophen, actuator, algorithm, amoxicillin, amplifier, angioplasty, antibody, "
    "aorta, arrhythmia, aspirin, asthma, atrium, bandwidth, bearing, benzene, biopsy, "
    "bitrate, boiler, bronchitis, bytecode, cache, calcium, capacitor, cardiology, "
    "catheter, cholesterol, chromosome, circuit, clinic, codec, collagen, compiler, "
    "compressor, container, cortisone, coupling, crankshaft, cylinder, database, debugger, "
    "defibrillator, dermatology, diagnosis, dialysis, diaphragm, diesel, diode, dosage, "
    "driveshaft, electrode, embolism, encoder, enzyme, epidural, ethernet, exhaust, femur, "
    "fibrosis, filament, firewall, firmware, flywheel, fracture, fuse, gasket, gateway, "
    "gearbox, generator, genome, glucose, hardware, heap, hemoglobin, hydraulics, hypoxia, "
    "ibuprofen, immunology, impedance, implant, inductor, insulin, interface, inverter, "
    "ischemia, isotope, kernel, kilowatt, latency, ligament, lisinopril, lithium, "
    "lubricant, lumbar, lymphoma, magnet, manifold, membrane, meniscus, metformin, "
    "microcode, modem, morphine, motherboard, nephrology, neuron, nozzle, oncology, optics, "
    "orthopedics, oscillator, packet, pancreas, parser, pathology, penicillin, piston, "
    "plasma, platelet, pneumonia, processor, prosthesis, protein, protocol, radiator, "
    "radiology, regulator, relay, resistor, router, scalpel, sensor, sepsis, serotonin, "
    "server, solenoid, stent, switch, tendon, thermostat, thread, thyroid, torque, "
    "transformer, turbine, ultrasound, vaccine, valve, vertebra, viscosity, voltage"
)
"""A vocabulary of 150 words."""

PROMPTS = {
    "instruction": "Transcribe the audio exactly. The speaker may mention Kubernetes, PostgreSQL, "
    "and node-whisper. Do not translate.",
    "names": "Alice Nguyen, Bartholomew Okafor, Siobhan O'Rourke, Xavier Dubois, Priya Raman, "
    "Tadeusz Kowalski, Ingrid Bergström.",
    "filler": "Okay, so, um, let's get started with the meeting then.",
    "150 words": VOCABULARY,
}
